"""What the lessons stand on: building, checking, data, training, plots."""
