"What is heard: sound files, spectra, and the ways from notes to sound."
