// An enclosure holds one lab at a time, so no two classes of these tests may run side by side.
[assembly: Xunit.CollectionBehavior(DisableTestParallelization = true)]
