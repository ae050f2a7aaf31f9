// Tabs as the WAI-ARIA practices have them: arrows move, the chosen one is in the order of Tab.

export class Tabs extends EventTarget {
  constructor(list) {
    super();
    this.tabs = [...list.querySelectorAll("[role=tab]")];
    list.addEventListener("click", ({ target }) => {
      const tab = target.closest("[role=tab]");
      if (tab && !tab.disabled) this.show(tab.getAttribute("aria-controls"));
    });
    list.addEventListener("keydown", (event) => {
      const able = this.tabs.filter((tab) => !tab.disabled);
      const at = able.indexOf(event.target);
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: able.length - 1 }[event.key];
      if (next === undefined || at < 0) return;
      event.preventDefault();
      event.stopPropagation();
      const tab = able[(next + able.length) % able.length];
      this.show(tab.getAttribute("aria-controls"));
      tab.focus();
    });
  }

  show(id) {
    this.shown = id;
    for (const tab of this.tabs) {
      const chosen = tab.getAttribute("aria-controls") === id;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
    this.dispatchEvent(new Event("change"));
  }

  able(id, able) {
    this.tabs.find((tab) => tab.getAttribute("aria-controls") === id).disabled = !able;
  }
}
