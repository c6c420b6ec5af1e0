"Two folders compared, and a page to see and hear what was found."
