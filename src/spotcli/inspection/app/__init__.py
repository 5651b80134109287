"""The interactive viewer of pairs (Textual); its entry is ``application.run``."""
