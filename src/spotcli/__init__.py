"""spot: surgical post-training from the terminal.

problems -> samples -> pairs -> checkpoint -> scores

spot sample     the policy answers problems; every answer is graded
spot rectify    an oracle repairs the wrong answers with the smallest edit
spot inspect    look at the repairs before anything is trained on them
spot train      train on the pairs, tethered to the starting policy
spot eval       what was gained, and what it cost
"""

__version__ = "0.1.0.dev0"
