"""The studies behind `jobs/study.py`: what the method is worth on real photos and real weights, with its range."""
