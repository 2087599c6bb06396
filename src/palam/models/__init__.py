"""The bridge and the frozen models that it joins."""
