"""Any gr.Blocks in public: the server around it, its guard, languages and picture uploads. Knows no model."""
