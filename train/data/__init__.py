"""What is trained on: clips of datasets, their order, the loader that reads them, augmentation."""
