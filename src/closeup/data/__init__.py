"""Data sets in: readers that yield one record type, and writers that turn records back into files."""

from closeup.data.captions import Captioned as Captioned
from closeup.data.coco import CocoCaptions as CocoCaptions
from closeup.data.coco import CocoInstances as CocoInstances
from closeup.data.coco_panoptic import CocoPanoptic as CocoPanoptic
from closeup.data.fgovd import FgOvd as FgOvd
from closeup.data.folder import ImageFolder as ImageFolder
from closeup.data.images import list_images as list_images
from closeup.data.images import open_image as open_image
from closeup.data.karpathy import Karpathy as Karpathy
from closeup.data.labelmaps import LabelMapFolder as LabelMapFolder
from closeup.data.lvis import Lvis as Lvis
from closeup.data.negatives import hard_negatives as hard_negatives
from closeup.data.record import Description as Description
from closeup.data.record import Reader as Reader
from closeup.data.record import Record as Record
from closeup.data.record import iterate as iterate
from closeup.data.registry import open_reader as open_reader
from closeup.data.write_coco import write_coco_captions as write_coco_captions
from closeup.data.write_coco import write_coco_instances as write_coco_instances
from closeup.data.write_coco import write_coco_panoptic as write_coco_panoptic
from closeup.data.write_fgovd import write_fgovd as write_fgovd
from closeup.data.write_labelmaps import write_labelmaps as write_labelmaps
