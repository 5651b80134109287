"""spot: surgical post-training on the command line.

problems -> samples -> pairs -> checkpoint -> scores

spot sample     answer problems with the policy and grade each answer
spot rectify    correct the wrong answers with the smallest edit
spot inspect    show the corrections before training
spot train      train on the pairs and stay close to the starting policy
spot eval       measure gains and drift
"""

__version__ = "0.1.0.dev0"
