"""Closeup."""
