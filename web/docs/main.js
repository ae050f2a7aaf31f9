// The API, browsable: the server's own description in a well-known viewer.

import { address } from "../api.js";

const token = new URLSearchParams(location.search).get("token");

SwaggerUIBundle({
  url: address("v1/openapi.json"),
  domNode: document.getElementById("docs"),
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "none",
  filter: true,
  // Nobody else is asked: no badge of a validator elsewhere.
  validatorUrl: null,
  requestInterceptor: (request) => {
    if (token && new URL(request.url, location.href).origin === location.origin) request.headers.Authorization = `Bearer ${token}`;
    return request;
  },
});
