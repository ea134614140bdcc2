"""One merged model kept with a low-rank difference to each expert, and a router that weighs them.

Members:
    differences: what of an expert is not in the merge, as factors of low rank.
    file: the list of differences beside a merge.
    folder: differences and router made and written.
    restored: a model made of merge and differences, as a folder.
    router: which differences a prompt needs, told by its hidden states.
    routed: the merge as a live model that adds to itself what each prompt needs.
"""
