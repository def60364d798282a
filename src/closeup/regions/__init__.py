"""Regions as weighted sums of a dense map: boxes, masks, grids, and the crops that cut them out."""

from closeup.regions.boxes import box_weights as box_weights
from closeup.regions.boxes import pool_boxes as pool_boxes
from closeup.regions.boxes import whole_cells as whole_cells
from closeup.regions.checks import as_boxes as as_boxes
from closeup.regions.checks import as_masks as as_masks
from closeup.regions.checks import check_boxes as check_boxes
from closeup.regions.checks import check_masks as check_masks
from closeup.regions.crops import FG_CLIP as FG_CLIP
from closeup.regions.crops import CropPolicy as CropPolicy
from closeup.regions.crops import crop_regions as crop_regions
from closeup.regions.grid import candidate_grids as candidate_grids
from closeup.regions.grid import grid_boxes as grid_boxes
from closeup.regions.masks import cell_counts as cell_counts
from closeup.regions.masks import masks_to_cells as masks_to_cells
from closeup.regions.masks import pool_masks as pool_masks
from closeup.regions.random_boxes import random_boxes as random_boxes
