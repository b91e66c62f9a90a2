"use strict";

// Redoc loads the logo in its footer from a CDN. A span in place of the image loads nothing.
const createElement = document.createElement.bind(document);
document.createElement = (name, options) => createElement(name === "img" ? "span" : name, options);

const font = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif';
const typography = {
  fontFamily: font,
  headings: { fontFamily: font, fontWeight: "600" },
  code: { fontFamily: 'ui-monospace, "SF Mono", Menlo, Consolas, monospace' },
};

// Redoc computes shades from its colors, so they cannot be the variables of style.css.
const light = {
  colors: { primary: { main: "#5a4fc4" } },
  typography,
};
const dark = {
  colors: {
    primary: { main: "#aaa2ff" },
    success: { main: "#66c796" },
    warning: { main: "#dcb05a", dark: "#dcb05a" },
    error: { main: "#f28d82" },
    gray: { 50: "#242428", 100: "#242428" },
    text: { primary: "#ededeb", secondary: "#a5a49f" },
    border: { dark: "#313136", light: "#313136" },
    responses: { info: { color: "#74b4f0" } },
  },
  schema: { linesColor: "#74747c", nestedBackground: "#242428" },
  typography: { ...typography, code: { ...typography.code, color: "#f28d82", backgroundColor: "#242428" } },
  sidebar: {
    backgroundColor: "#131315",
    textColor: "#ededeb",
    groupItems: { activeBackgroundColor: "#242428" },
    level1Items: { activeBackgroundColor: "#242428" },
  },
  rightPanel: {
    backgroundColor: "#131315",
    servers: { overlay: { backgroundColor: "#242428", textColor: "#ededeb" }, url: { backgroundColor: "#1b1b1e" } },
  },
  codeBlock: { backgroundColor: "#1b1b1e" },
  fab: { backgroundColor: "#313136", color: "#aaa2ff" },
};

// Redoc would show a relative server URL as `…/./tasks`, so it gets the document with absolute
// URLs.
async function absoluteDocument() {
  const openapi = await (await fetch("openapi.json")).json();
  for (const server of openapi.servers) server.url = new URL(server.url, document.baseURI).href;
  return openapi;
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
prefersDark.addEventListener("change", () => location.reload());

absoluteDocument()
  .catch(() => "openapi.json") // Redoc loads it itself, and shows the error.
  .then((openapi) => {
    const theme = prefersDark.matches ? dark : light;
    Redoc.init(openapi, { downloadDefinitionUrl: "openapi.json", theme }, document.getElementById("redoc"));
  });
