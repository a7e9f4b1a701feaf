"""The Compare tab: two ways to draw from the same noise, and how they differ (docs/notes.md#n1-5-reverse)."""
