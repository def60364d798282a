"""Pictures of regions, label maps, heat maps and clusters."""

from closeup.viz.curve import draw_curves as draw_curves
from closeup.viz.heatmap import draw_heatmap as draw_heatmap
from closeup.viz.kmeans import kmeans_sheet as kmeans_sheet
from closeup.viz.kmeans import match_labels as match_labels
from closeup.viz.legend import draw_legend as draw_legend
from closeup.viz.legend import with_legend as with_legend
from closeup.viz.overlay import draw_regions as draw_regions
from closeup.viz.overlay import draw_segmentation as draw_segmentation
from closeup.viz.palette import name_colours as name_colours
from closeup.viz.sheet import draw_sheet as draw_sheet
