"""The interactive viewer of pairs (Textual); only ``open_app`` of ``application`` is for others."""
