// The drawing of the graph. `hands` has what to do on nodeDown, nodeKey, edgeClick and edgeKey.
(function () {
  "use strict";
  const { gbp } = PGM;
  const { svg, set, number, short } = PGM.dom;

  const REACH = 3; // half of what a node's axis shows

  // What message k says about its receiver.
  PGM.sentence = function (p, messages, k) {
    const { precision, mean } = gbp.said(p, messages, k);
    return mean === null ? "says nothing" : `mean ${short(mean)}, precision ${number(precision)}`;
  };

  PGM.stage = function (stage, hands) {
    const layers = ["edges", "glyphs", "nodes", "flying"].map((name) => svg("g", { "data-layer": name }));
    stage.append(...layers);
    const [edgeLayer, glyphLayer, nodeLayer, flyingLayer] = layers;

    function place(node) {
      const small = stage.clientWidth < 520;
      const card = small ? { w: 68, h: 46 } : { w: 104, h: 66 };
      const [left, top, bottom] = [card.w / 2 + 10, card.h / 2 + 10, card.h / 2 + 46];
      return {
        ...card,
        x: left + node.x * (stage.clientWidth - 2 * left),
        y: top + node.y * (stage.clientHeight - top - bottom),
      };
    }

    let view; // { state, p, truth, messages, now }, what was painted last
    let flight = null; // the animation on its way

    const isSelected = (kind, index) => view.state.selected?.kind === kind && view.state.selected.index === index;

    // New elements for a new structure; `paint` fills in the numbers.
    function build(state, p) {
      const focus = document.activeElement?.dataset?.key;
      edgeLayer.replaceChildren(...state.edges.map((_, e) => edgeElement(e)));
      nodeLayer.replaceChildren(...state.nodes.map((node, i) => nodeElement(node, i)));
      glyphLayer.replaceChildren(...p.directed.map(() => svg("path", { class: "glyph", d: "M-6,-4 L6,0 L-6,4 Z" })));
      if (focus) stage.querySelector(`[data-key="${focus}"]`)?.focus();
    }

    function nodeElement(node, i) {
      const group = svg("g", { class: "node", tabindex: 0, role: "button", "data-key": `node-${i}` }, [
        svg("rect", { class: "card", rx: 8 }),
        svg("path", { class: "axis" }),
        svg("path", { class: "belief" }),
        svg("path", { class: "truth" }),
        svg("path", { class: "seen" }),
        svg("text", { class: "name" }, node.name),
        svg("text", { class: "value" }),
      ]);
      group.addEventListener("pointerdown", (event) => hands.nodeDown(event, i));
      // A finger on a node drags it, and beside it scrolls the page; `touch-action` does not reach inside an SVG everywhere
      group.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
      group.addEventListener("keydown", (event) => hands.nodeKey(event, i));
      return group;
    }

    function edgeElement(e) {
      const group = svg("g", { class: "edge", tabindex: 0, role: "slider", "data-key": `edge-${e}` }, [
        svg("line", { class: "reach" }),
        svg("line", { class: "line" }),
        svg("rect", { class: "label-box", rx: 9, width: 44, height: 18 }),
        svg("text"),
      ]);
      set(group, { "aria-valuemin": -0.95, "aria-valuemax": 0.95 });
      group.addEventListener("click", () => hands.edgeClick(e));
      group.addEventListener("keydown", (event) => hands.edgeKey(event, e));
      return group;
    }

    function curve(mean, sd, card, top) {
      const points = Array.from({ length: 61 }, (_, k) => {
        const x = -REACH + (2 * REACH * k) / 60;
        const height = Math.exp(-0.5 * ((x - mean) / sd) ** 2) / sd / top;
        return `${((x / REACH) * (card.w / 2 - 4)).toFixed(1)},${(card.h / 2 - 8 - height * (card.h - 22)).toFixed(1)}`;
      });
      return `M${points.join("L")}`;
    }

    function paint(shown) {
      view = shown;
      set(stage, { viewBox: `0 0 ${stage.clientWidth} ${stage.clientHeight}` });
      view.state.nodes.forEach(paintNode);
      view.state.edges.forEach(paintEdge);
      view.p.directed.forEach(paintGlyph);
    }

    function paintNode(node, i) {
      const group = nodeLayer.children[i];
      const [card, axis, belief, exact, seen, name, value] = group.children;
      const at = place(node);
      const sd = Math.sqrt(view.now.variance[i]);
      const trueSd = view.truth.proper ? Math.sqrt(view.truth.variance[i]) : Infinity;
      const top = Math.max(1 / sd, 1 / trueSd);
      const base = at.h / 2 - 8;
      group.classList.toggle("selected", isSelected("node", i) || view.state.connecting === i);
      set(group, { transform: `translate(${at.x},${at.y})`, "aria-pressed": isSelected("node", i) });
      const exactly = view.truth.proper ? `${number(view.truth.mean[i])} ± ${number(trueSd)}` : "unknown";
      const evidence = node.precision > 0 ? `, seen at ${number(node.mean)}` : "";
      const told = `belief ${short(view.now.mean[i])} ± ${number(sd)}, exact ${exactly}`;
      group.setAttribute("aria-label", `Node ${node.name}${evidence}: ${told}`);
      set(card, { x: -at.w / 2, y: -at.h / 2, width: at.w, height: at.h });
      set(axis, { d: `M${-at.w / 2 + 4},${base} H${at.w / 2 - 4} M0,${base} v4` });
      belief.setAttribute("d", curve(view.now.mean[i], sd, at, top));
      exact.setAttribute("d", view.truth.proper ? curve(view.truth.mean[i], trueSd, at, top) : "");
      const x = (Math.max(-REACH, Math.min(REACH, node.mean)) / REACH) * (at.w / 2 - 4);
      seen.setAttribute("d", node.precision > 0 ? `M${x - 5},${base + 7} L${x + 5},${base + 7} L${x},${base - 1} Z` : "");
      set(name, { x: -at.w / 2 + 6, y: -at.h / 2 + 15 });
      value.setAttribute("y", at.h / 2 + 14);
      value.textContent = `${short(view.now.mean[i])} ± ${number(sd)}`;
    }

    function paintEdge(edge, e) {
      const [from, to] = [place(view.state.nodes[edge.first]), place(view.state.nodes[edge.second])];
      const group = edgeLayer.children[e];
      const [reach, line, box, label] = group.children;
      for (const each of [reach, line]) set(each, { x1: from.x, y1: from.y, x2: to.x, y2: to.y });
      line.setAttribute("stroke-width", 1.2 + 4.5 * Math.abs(edge.rho));
      const [x, y] = [(from.x + to.x) / 2, (from.y + to.y) / 2];
      set(box, { x: x - 22, y: y - 9 });
      set(label, { x, y });
      label.textContent = number(edge.rho);
      group.classList.toggle("negative", edge.rho < 0);
      group.classList.toggle("selected", isSelected("edge", e));
      const names = `${view.state.nodes[edge.first].name} and ${view.state.nodes[edge.second].name}`;
      group.setAttribute("aria-label", `Correlation of ${names}`);
      set(group, { "aria-valuenow": edge.rho, "aria-valuetext": number(edge.rho) });
    }

    // A small arrow per message, the darker the more it says.
    function paintGlyph({ source, target }, k) {
      const [from, to] = [place(view.state.nodes[source]), place(view.state.nodes[target])];
      const { precision } = gbp.said(view.p, view.messages, k);
      const [dx, dy] = [to.x - from.x, to.y - from.y];
      const length = Math.hypot(dx, dy) || 1;
      const x = from.x + 0.68 * dx - (9 * dy) / length;
      const y = from.y + 0.68 * dy + (9 * dx) / length;
      const angle = (Math.atan2(dy, dx) * 180) / Math.PI;
      const strength = precision / (precision + 0.5);
      const shown = precision === 0 ? 0 : 0.2 + 0.8 * strength;
      set(glyphLayer.children[k], { transform: `translate(${x},${y}) rotate(${angle})`, opacity: shown });
    }

    // Dots that stand for `messages` along the directed edges `ks`.
    function fly(ks, messages, inOrder, duration, arrived) {
      const few = ks.length <= 4;
      const dots = ks.map((k, turn) => ({ k, element: dot(k, messages, few), delay: inOrder ? (0.6 * turn) / ks.length : 0 }));
      const span = inOrder ? 0.4 : 1;
      flyingLayer.replaceChildren(...dots.map((each) => each.element));
      const start = performance.now();
      const frame = (time) => {
        const t = (time - start) / duration;
        if (t >= 1) return arrived();
        for (const { k, element, delay } of dots) {
          const part = Math.max(0, Math.min(1, (t - delay) / span));
          const ease = 0.12 + 0.76 * part * part * (3 - 2 * part);
          const { source, target } = view.p.directed[k];
          const [from, to] = [place(view.state.nodes[source]), place(view.state.nodes[target])];
          const [x, y] = [from.x + ease * (to.x - from.x), from.y + ease * (to.y - from.y)];
          set(element, { transform: `translate(${x},${y})`, opacity: part > 0 && part < 1 ? 1 : 0 });
        }
        flight = requestAnimationFrame(frame);
      };
      flight = requestAnimationFrame(frame);
    }

    function dot(k, messages, labelled) {
      const { precision } = gbp.said(view.p, messages, k);
      const size = 3 + (4 * precision) / (precision + 0.5);
      const element = svg("g", { class: "message", opacity: 0 }, svg("circle", { r: size }));
      if (labelled) {
        const text = PGM.sentence(view.p, messages, k);
        element.append(
          svg("rect", { x: -text.length * 3.4 - 6, y: -33, width: text.length * 6.8 + 12, height: 20, rx: 6 }),
          svg("text", { y: -23 }, text),
        );
      }
      return element;
    }

    // End the flight; whether there was one.
    function land() {
      if (flight === null) return false;
      cancelAnimationFrame(flight);
      flight = null;
      flyingLayer.replaceChildren();
      return true;
    }

    // A step in pixels, and the place of an event, in the unit square.
    function scaled(dx, dy) {
      const [left, right] = [place({ x: 0, y: 0 }), place({ x: 1, y: 1 })];
      return { x: dx / (right.x - left.x), y: dy / (right.y - left.y) };
    }

    function located(event) {
      const [box, corner] = [stage.getBoundingClientRect(), place({ x: 0, y: 0 })];
      return scaled(event.clientX - box.left - corner.x, event.clientY - box.top - corner.y);
    }

    const node = (i) => nodeLayer.children[i];
    return { build, paint, fly, land, scaled, located, node, flying: () => flight !== null };
  };
})();
