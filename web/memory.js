// What the browser remembers of a visitor between visits; nothing of it leaves the machine.

export const memory = {
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(`continuo.${key}`));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`continuo.${key}`, JSON.stringify(value));
    } catch {
      /* private windows may refuse */
    }
  },
};
