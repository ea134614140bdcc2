"""One mask over the task vectors of all experts, learned through the loss of their merge.

Members:
    settings: how a mask is learned, and how the merge is made.
    relaxed: masks between 0 and 1 drawn from logits, and slopes through them.
    learning: steps of the logits along the loss of the merge.
    folder: the experts under a learned mask, as folders, and the mask kept by content.
"""
