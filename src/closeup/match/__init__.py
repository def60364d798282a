"""Scores: the cosine matcher and the fusion of two scores."""

from closeup.match.cosine import Bank as Bank
from closeup.match.cosine import cosine as cosine
from closeup.match.cosine import cosine_map as cosine_map
from closeup.match.cosine import probabilities as probabilities
from closeup.match.cosine import reduce_synonyms as reduce_synonyms
from closeup.match.cosine import score as score
from closeup.match.cosine import score_map as score_map
from closeup.match.cosine import top_k as top_k
from closeup.match.fusion import fuse as fuse
from closeup.match.fusion import word_weights as word_weights
