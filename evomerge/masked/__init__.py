"""One merged model kept with a mask of bits per expert, from which each expert comes back.

Members:
    kinds: which elements of a merge an expert needs, and how much of them.
    listed: the list of what is kept beside a merge, whatever it is.
    file: that of masks.
    folder: masks made and written.
    restored: an expert's model made of base, merge and mask, as a folder.

A new kind of mask is a function in ``kinds`` and a word of ``MaskKind``.
"""
