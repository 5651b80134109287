"""How a policy answers problems, the same for ``spot sample`` and ``spot eval``.

engine     which engine answers, and with which parameters
journal    answers on disk before they are graded
answered   what is answered already, and what a run has done
loop       answers received, kept, graded and written; what a stop leaves
graded     graded answers as fields of a row
"""
