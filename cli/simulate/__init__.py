"""`fleet simulate`: the real code on virtual time, one seed after the other."""
