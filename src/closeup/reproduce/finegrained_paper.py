"""What the paper says of fine-grained matching, with where each figure is known from."""

from __future__ import annotations

from collections.abc import Mapping

from closeup.reproduce.result import Paper

RANK = "mean rank"
TEXT_R1, TEXT_R5, TEXT_R10 = "image to text R@1", "image to text R@5", "image to text R@10"
IMAGE_R1, IMAGE_R5, IMAGE_R10 = "text to image R@1", "text to image R@5", "text to image R@10"
METRICS = (RANK, TEXT_R1, TEXT_R5, TEXT_R10, IMAGE_R1, IMAGE_R5, IMAGE_R10)

COSINE_ROW = "cosine"
WARM, FINE = "warm-up", "fine-tuned"
KINDS: Mapping[str, str] = {
    "linear on both": "linear",
    "linear on the image": "linear-image",
    "linear on the text": "linear-text",
    "MLP": "mlp",
    "attention": "attention",
}
"""The paper's matching functions besides the cosine, as rows name them, and our names of them."""

_TABLE = "Bianchi et al., CBMI 2024, results on the project page: CLIP ViT-B/16, COCO and FG-OVD"
_COSINE = f"{_TABLE}; its retrieval was measured with embeddings normalised along the wrong axis"
_FIGURES: Mapping[str, tuple[float, ...]] = {
    f"linear on both, {WARM}": (3.78, 48.0, 76.6, 85.4, 37.2, 65.6, 76.6),
    f"linear on both, {FINE}": (1.46, 37.1, 66.8, 78.4, 35.6, 63.9, 75.0),
    f"linear on the image, {WARM}": (3.53, 45.8, 74.2, 83.7, 35.4, 64.2, 75.3),
    f"linear on the image, {FINE}": (1.54, 39.4, 69.5, 79.8, 34.3, 62.9, 74.1),
    f"linear on the text, {WARM}": (3.48, 47.3, 75.1, 84.9, 36.0, 64.3, 75.6),
    f"linear on the text, {FINE}": (1.57, 41.1, 70.4, 80.6, 34.7, 63.2, 74.6),
    f"MLP, {WARM}": (3.49, 45.9, 75.5, 84.6, 36.5, 64.9, 76.2),
    f"MLP, {FINE}": (1.43, 31.9, 60.2, 72.7, 33.6, 62.0, 73.9),
    f"attention, {WARM}": (4.08, 36.3, 66.1, 78.1, 29.1, 57.6, 70.3),
    f"attention, {FINE}": (1.54, 22.3, 48.3, 61.2, 22.6, 49.2, 62.0),
}
MATCHED: Mapping[tuple[str, str], Paper] = {
    **{
        (COSINE_ROW, metric): Paper(value, _COSINE)
        for metric, value in zip(METRICS, (2.98, 41.5, 65.9, 76.2, 22.6, 44.1, 54.9), strict=True)
    },
    **{
        (row, metric): Paper(value, _TABLE)
        for row, values in _FIGURES.items()
        for metric, value in zip(METRICS, values, strict=True)
    },
}
"""The paper's first table by row and metric: the mean over FG-OVD's eight benchmarks, and recall on COCO."""

_FIGURE = "Bianchi et al., bar chart of CLIP and OWL, read off its pixels to 0.06"
SPLIT_RANKS: Mapping[tuple[str, str], Paper] = {
    (row, title): Paper(value, _FIGURE)
    for row, values in (
        (COSINE_ROW, (1.80, 2.60, 2.76, 3.57, 2.87, 4.21, 3.85, 2.07)),
        ("detector", (2.23, 3.14, 3.03, 3.67, 3.25, 4.05, 4.00, 1.63)),
    )
    for title, value in zip(
        ("Trivial", "Easy", "Medium", "Hard", "Color", "Material", "Pattern", "Transparency"), values, strict=True
    )
}
"""Mean rank of each benchmark: by crops and the cosine of CLIP ViT-B/16, and by OWL ViT-B/16."""
