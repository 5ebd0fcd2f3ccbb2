--- What makes the page live: it takes the parts that changed from /events and changes only what differs, so that the
-- focus, a selection and an opened table stay. Without it the page is read again every few seconds.
-- @module lunashard.serve.page.script

return [[
(function () {
  "use strict";
  if (!window.EventSource) { return; }
  var live = document.getElementById("live"), words = live.lastElementChild, icon = document.querySelector("link[rel=icon]");
  function say(state, text) {
    if (live.className !== "live " + state) { live.className = "live " + state; words.textContent = text; }
  }
  function attributes(from, to) {
    var i, name;
    for (i = to.attributes.length - 1; i >= 0; i--) {
      name = to.attributes[i].name;
      if (from.getAttribute(name) !== to.attributes[i].value) { from.setAttribute(name, to.attributes[i].value); }
    }
    for (i = from.attributes.length - 1; i >= 0; i--) {
      name = from.attributes[i].name;
      if (!to.hasAttribute(name)) { from.removeAttribute(name); }
    }
  }
  function children(from, to) {
    var a = from.firstChild, b = to.firstChild, next;
    while (b) {
      next = b.nextSibling;
      if (!a) { from.appendChild(b); } else { a = change(a, b).nextSibling; }
      b = next;
    }
    while (a) { next = a.nextSibling; from.removeChild(a); a = next; }
  }
  function change(from, to) {
    if (from.nodeName !== to.nodeName) { from.parentNode.replaceChild(to, from); return to; }
    if (from.nodeType === 3) { if (from.data !== to.data) { from.data = to.data; } return from; }
    if (from.nodeType === 1) { attributes(from, to); children(from, to); }
    return from;
  }
  var source = new EventSource("/events"), last = Date.now();
  source.addEventListener("page", function (event) {
    var parts = JSON.parse(event.data), slot, template;
    last = Date.now();
    Object.keys(parts).forEach(function (id) {
      if (id === "title") { document.title = parts.title; return; }
      if (id === "icon") { icon.href = parts.icon; return; }
      slot = document.getElementById(id);
      if (!slot) { return; }
      template = document.createElement("template");
      template.innerHTML = parts[id];
      children(slot, template.content);
    });
    say("on", "live");
  });
  source.onerror = function () { say("off", "not connected, trying again"); };
  setInterval(function () {
    if (Date.now() - last > 5000) { say("off", "nothing heard for " + Math.round((Date.now() - last) / 1000) + " s"); }
  }, 1000);
}());
]]
