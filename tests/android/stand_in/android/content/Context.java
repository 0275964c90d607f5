package android.content;

/** Stands in for Android's class on a host's JVM, where its constructor throws. */
public class Context {}
