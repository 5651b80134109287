"""``spot init``: a commented recipe from a template, the user's answers and the hardware of this machine."""
