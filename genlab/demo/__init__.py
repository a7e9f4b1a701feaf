"""The page: the only part of genlab that knows gradio."""
