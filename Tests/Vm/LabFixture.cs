using FCtrans.Lab;
using Xunit;

namespace FCtrans.Vm.Tests;

/// <summary>The one lab of this test run (`Tests/Lab/enter dotnet test …`), shared by the test classes of its collection, which run one after another.</summary>
public sealed class LabFixture : IDisposable
{
    /// <summary>The lab. Each test class adds hosts under names of its own and disposes of them.</summary>
    public Lab.Lab Lab { get; } = new();

    public void Dispose() => Lab.Dispose();
}

/// <summary>Put `[Collection(LabCollection.Name)]` on a class and take a <see cref="LabFixture"/> in its constructor.</summary>
[CollectionDefinition(Name)]
public sealed class LabCollection : ICollectionFixture<LabFixture>
{
    public const string Name = "lab";
}
