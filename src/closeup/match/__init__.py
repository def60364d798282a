"""Scores: the cosine, learned matchers, and the fusion of two scores."""

from closeup.match.cosine import cosine as cosine
from closeup.match.cosine import cosine_map as cosine_map
from closeup.match.fusion import fuse as fuse
from closeup.match.fusion import word_weights as word_weights
from closeup.match.matcher import Matcher as Matcher
from closeup.match.matcher import Seen as Seen
from closeup.match.matcher_file import load_matcher as load_matcher
from closeup.match.matcher_file import save_matcher as save_matcher
from closeup.match.matchers import new_matcher as new_matcher
from closeup.match.scores import Bank as Bank
from closeup.match.scores import probabilities as probabilities
from closeup.match.scores import reduce_synonyms as reduce_synonyms
from closeup.match.scores import score as score
from closeup.match.scores import score_map as score_map
from closeup.match.scores import top_k as top_k
