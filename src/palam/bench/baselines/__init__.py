"""What bridges are compared with: one file a baseline, which `baseline_registry` names."""
