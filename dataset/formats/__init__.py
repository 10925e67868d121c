"""One file per family of formats, from the fields of a row to its examples. A bad row raises BadRow."""
