"""Vocabularies, template sets, and the text bank that embeds one through the other."""

from closeup.text.bank import TextBank as TextBank
from closeup.text.bank import TextEncoder as TextEncoder
from closeup.text.bank import build_bank as build_bank
from closeup.text.cache import cache_folder as cache_folder
from closeup.text.means import MEANS as MEANS
from closeup.text.names import CLEANERS as CLEANERS
from closeup.text.names import clean_name as clean_name
from closeup.text.templates import TEMPLATES as TEMPLATES
from closeup.text.templates import Templates as Templates
from closeup.text.templates import get_templates as get_templates
from closeup.text.vocabulary import NAMED as NAMED
from closeup.text.vocabulary import Vocabulary as Vocabulary
