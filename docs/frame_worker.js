// Search in pages that are opened from a file. Browsers refuse workers there, so the search runs in a hidden frame.
if (location.protocol === "file:") {
  window.Worker = window.IFrameWorker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      this.inside = this.frame.contentWindow;
      this.loaded = new Promise((resolve) => {
        this.inside.workerLoaded = resolve;
        this.inside.document.open();
        this.inside.document.write(`<script src="${url}" onload="workerLoaded()"></scr` + "ipt>");
        this.inside.document.close();
      });
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
    }

    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
