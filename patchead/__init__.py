"""patchead: nightly patch-level defect scoring of image archives with frozen vision encoders, on Ray."""

__version__ = "0.1.0"
