"""What fastai trains."""
