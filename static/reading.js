// What do texts need that are only read? Their math typeset, and a button that copies their code.

import { enliven } from "/static/content.js";

const { copyWord: copy, copiedWord: copied } = document.querySelector("[data-copy-word]").dataset;
enliven(document, { copy, copied });
