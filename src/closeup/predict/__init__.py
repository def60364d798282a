"""What users call: regions, pixels and heat maps in words, and how good they are; results that draw and save."""

from closeup.predict.classify import classify as classify
from closeup.predict.classify import classify_many as classify_many
from closeup.predict.clusters import clusters as clusters
from closeup.predict.coco import coco_document as coco_document
from closeup.predict.coco import save_coco as save_coco
from closeup.predict.detect import DetectionResult as DetectionResult
from closeup.predict.detect import detect as detect
from closeup.predict.detect import detect_zero_shot as detect_zero_shot
from closeup.predict.evaluate_detection import DetectionReport as DetectionReport
from closeup.predict.evaluate_detection import evaluate_detection as evaluate_detection
from closeup.predict.evaluate_regions import evaluate_regions as evaluate_regions
from closeup.predict.evaluate_segmentation import SegmentationReport as SegmentationReport
from closeup.predict.evaluate_segmentation import evaluate_segmentation as evaluate_segmentation
from closeup.predict.forgetting import evaluate_forgetting as evaluate_forgetting
from closeup.predict.forgetting_report import ForgettingReport as ForgettingReport
from closeup.predict.heatmap import heatmap as heatmap
from closeup.predict.image_sources import Skipped as Skipped
from closeup.predict.provenance import Provenance as Provenance
from closeup.predict.region_report import RegionReport as RegionReport
from closeup.predict.result import Result as Result
from closeup.predict.results import HeatmapResult as HeatmapResult
from closeup.predict.results import RegionResult as RegionResult
from closeup.predict.results import SegmentationResult as SegmentationResult
from closeup.predict.segment import segment as segment
from closeup.predict.segment import segment_many as segment_many
from closeup.predict.words import Words as Words
