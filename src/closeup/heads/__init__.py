"""Trained predictors on CLIP features."""
