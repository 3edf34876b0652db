"""Training data: clips of datasets, their order, the loader that reads them, augmentation."""
