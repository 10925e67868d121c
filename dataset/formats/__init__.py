"""One file for each family of formats: from the fields of a row to its examples. A bad row is a BadRow."""
