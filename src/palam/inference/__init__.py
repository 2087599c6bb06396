"""Reading with a bridge: label scores, answers, accuracy, calibration, layer weights."""
