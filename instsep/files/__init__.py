"What the commands do with files: names, formats, resuming, whole files or none."
