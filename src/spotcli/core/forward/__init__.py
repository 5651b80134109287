"""From pairs to log-probabilities: everything between a row of a data set and the loss.

    encoding            pairs -> token ids
    token_marks         pairs -> the tokens that single objectives lower or weigh
    batches             token counts -> which pairs each process runs in each micro-batch
    packing             token ids -> the tensors of one micro-batch
    shared_attention    attention for rows in which both answers of a pair share one prefix
    compiled_norms      one kernel per norm
    rounded_operands    fewer copies of activations under autocast
    logps               hidden states -> log-probabilities, without the full matrix of logits

All modules except ``encoding`` and ``token_marks`` import torch.
"""
