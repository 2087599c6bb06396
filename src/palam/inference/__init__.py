"""What a bridge reads: label scores, answers, accuracy, layer weights."""
