// Helpers for both parts of the page.
(function () {
  "use strict";

  const byId = (id) => document.getElementById(id);

  function svg(tag, attributes = {}, children = []) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    return fill(element, attributes, children);
  }

  function html(tag, attributes = {}, children = []) {
    return fill(document.createElement(tag), attributes, children);
  }

  function fill(element, attributes, children) {
    set(element, attributes);
    element.append(...(Array.isArray(children) ? children : [children]));
    return element;
  }

  function set(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }

  // A number to read: a true minus sign, and no "-0.00".
  function number(value, digits = 2) {
    if (value === null || Number.isNaN(value)) return "–";
    const text = Math.abs(value).toFixed(digits);
    return (value < 0 && Number(text) !== 0 ? "−" : "") + text;
  }

  // The same where a value may be large.
  function short(value, digits = 2) {
    if (value === null || Math.abs(value) < 1e4) return number(value, digits);
    const [mantissa, power] = Math.abs(value).toExponential(0).split("e+");
    return `${value < 0 ? "−" : ""}${mantissa}e${power}`;
  }

  // A colour of the style sheet as [r, g, b], in the scheme that is on.
  const probe = html("span", { hidden: "" });
  document.body.append(probe);
  function rgb(name) {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  }
  const colour = (name) => `rgb(${rgb(name)})`;

  const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;

  // Inside a page of the documentation, follow the light or dark that its reader has chosen there.
  function onTheme(act) {
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", act);
    try {
      const around = window.parent === window ? null : window.parent.document.body;
      if (!around) return;
      const follow = () => {
        const chosen = around.dataset.theme;
        document.documentElement.style.colorScheme = ["light", "dark"].includes(chosen) ? chosen : "";
        act();
      };
      new MutationObserver(follow).observe(around, { attributeFilter: ["data-theme"] });
      follow();
    } catch (error) {
      if (error.name !== "SecurityError") throw error; // a page of files may not look at another
    }
  }

  // A slider with its value beside it. `show` turns the value into text; `act` runs on every change by hand.
  function slider(id, show, act) {
    const input = byId(id);
    const write = () => {
      const text = show(Number(input.value));
      byId(`${id}-value`).textContent = text;
      input.setAttribute("aria-valuetext", text);
    };
    input.addEventListener("input", () => {
      write();
      act(Number(input.value));
    });
    write();
    return {
      get value() {
        return Number(input.value);
      },
      set value(to) {
        input.value = to;
        write();
      },
      input,
    };
  }

  // Buttons of which one is pressed.
  function choices(id, options, act) {
    const buttons = new Map();
    for (const [key, label] of options) {
      const button = html("button", { type: "button", "aria-pressed": "false", "data-key": key }, label);
      button.addEventListener("click", () => act(key));
      byId(id).append(button);
      buttons.set(key, button);
    }
    return (chosen) => buttons.forEach((button, key) => button.setAttribute("aria-pressed", String(key === chosen)));
  }

  function statusList(id, rows) {
    byId(id).replaceChildren(
      ...rows.map(([kind, name, text]) => html("li", { class: kind }, [html("strong", {}, name), ` ${text}`])),
    );
  }

  PGM.dom = { byId, svg, html, set, number, short, rgb, colour, calm, onTheme, slider, choices, statusList };
})();
