"""Each paper's key tables on the embedded world, beside the paper's own figures."""
