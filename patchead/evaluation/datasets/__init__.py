"""Labelled datasets in the layouts they were published in, as lists of samples."""

from patchead.evaluation.datasets.base import Adapter, Dataset, DatasetClass, Sample
from patchead.evaluation.datasets.masks import read_mask
from patchead.evaluation.datasets.registry import DATASETS, load

__all__ = ["DATASETS", "Adapter", "Dataset", "DatasetClass", "Sample", "load", "read_mask"]
