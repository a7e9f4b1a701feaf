"""The Condition tab: repair a picture, start from a drawing, ask for a class (`genlab/condition.py`, docs/notes.md#n2)."""
